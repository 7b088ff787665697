# The gateway in a small image: no root, one volume for the ledger and the spool, a health check.
FROM python:3.11-slim

RUN useradd --system --uid 10001 --user-group --home-dir /app bridge \
 && mkdir -p /app /data && chown bridge:bridge /data
WORKDIR /app

# Dependencies first: they change seldom, and every file is checked against its hash.
COPY requirements.txt ./
RUN pip install --no-cache-dir --disable-pip-version-check --require-hashes -r requirements.txt

COPY bridge ./bridge
COPY config.example.toml ./
RUN python -m compileall -q bridge

USER 10001:10001
VOLUME /data
# In the container the ledger and the spool lie on the volume, whatever the settings file says of folders.
ENV PYTHONUNBUFFERED=1 \
    BRIDGE_STORE__URL=sqlite:////data/bridge.db \
    BRIDGE_STORE__SPOOL=/data/spool
EXPOSE 8080 8081
STOPSIGNAL SIGTERM
# Of the admin listener, which speaks plain HTTP on this machine whether or not the other one speaks TLS.
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s \
  CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8081/livez', timeout=2)"]
ENTRYPOINT ["python", "-m", "bridge"]
CMD ["serve", "--config", "/etc/bridge/bridge.toml"]
