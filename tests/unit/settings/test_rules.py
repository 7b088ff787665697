import pytest

HOST = '[server]\nhost = "127.0.0.1"\n'
OPEN = '[callers]\nauth = "open"\n'
ROUTE = '[[routes]]\nname = "shop"\nproject_token = "t-123456"\n'


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (HOST + OPEN, "routes: is missing. Add a [[routes]] table with name and project_token."),
        (
            HOST + OPEN + '[[routes]]\nname = "shop"\n',
            (
                "routes[0].project_token: is missing. "
                "Set it here, in project_token_file, or in BRIDGE_ROUTES__SHOP__PROJECT_TOKEN."
            ),
        ),
        (
            HOST + OPEN + '[[routes]]\nproject_token = "t"\n',
            "routes[0].name: is missing. Give the route a name of its own.",
        ),
        (
            HOST + OPEN + ROUTE + ROUTE,
            "routes[1].name: is the name of routes[0] too. Give each a name of its own.",
        ),
        (
            HOST + OPEN + ROUTE + 'build_id = "{job_id}"\n',
            "routes[0].build_id: lacks {build_no}. Add it: TestNod would put several builds into one run.",
        ),
        (
            HOST + OPEN + ROUTE + 'run_url = "https://x/{job}"\n',
            (
                "routes[0].run_url: holds {job}, which is not known. Write one of job_id, build_no, branch, commit, "
                "tag, region, devcloud_project_id, repo_name, daily_build_num, trigger_type."
            ),
        ),
        (
            HOST + OPEN + ROUTE + 'tags = ["unit", "{branch}"]\n',
            (
                "routes[0].tags[1]: is empty or holds braces. "
                "Write a fixed word: TestNod compares runs with the same tags."
            ),
        ),
        (
            HOST + OPEN + '[[routes]]\nname = "' + "x" * 65 + '"\nproject_token = "t"\n',
            "routes[0].name: is too long or not printable. Write at most 64 characters.",
        ),
        (
            HOST + OPEN + '[admin]\nhost = "0.0.0.0"\n' + ROUTE,
            (
                "admin.token: is missing, and admin.host can be reached from elsewhere. "
                "Set it here, in token_file, or in BRIDGE_ADMIN__TOKEN, or let admin.host be 127.0.0.1."
            ),
        ),
        (
            HOST + OPEN + "[admin]\nport = 8080\n" + ROUTE,
            "admin.port: is the server's port too. Give the two listeners different ports.",
        ),
        (
            HOST + 'trusted_proxies = ["lb"]\n' + OPEN + ROUTE,
            'server.trusted_proxies[0]: is neither an address nor a network. Write it like "10.0.0.0/8".',
        ),
        (
            '[server]\nhost = ""\n[callers]\ntokens = ["abcdef"]\n' + ROUTE,
            'server.host: is empty. Write an address to listen on, like "127.0.0.1" or "0.0.0.0".',
        ),
        (
            HOST + OPEN + '[store]\nurl = "mysql://x"\n' + ROUTE,
            'store.url: is no ledger. Write it like "sqlite:///data/bridge.db", or "postgresql://bridge@host/bridge".',
        ),
        *(
            (
                HOST + OPEN + ROUTE + f"{glob} = {nothing}\n",
                f"routes[0].{glob}: is empty, so that the route takes no build. Leave it out for any.",
            )
            for glob, nothing in (("job_id", "[]"), ("branch", '""'), ("repo", '["shop", ""]'))
        ),
        (
            HOST + OPEN + '[store]\nspool = "ftp://x"\n' + ROUTE,
            'store.spool: is no folder. Write it like "data/spool".',
        ),
        *(
            (
                HOST + OPEN + f'[testnod]\nbase_url = "{url}"\n' + ROUTE,
                (
                    "testnod.base_url: is no address that calls can be made to. "
                    "Write scheme and host only, like https://host.example."
                ),
            )
            for url in (
                *("", "app.testnod.com", "ftp://x", "https://", "https://u:p@x", "https://x?a=b", "https://x:y"),
                *(" https://x", "https://x ", "https://x\\n", "https://a b"),
            )
        ),
        (
            HOST + OPEN + '[testnod]\nstorage_hosts = ["https://x"]\n' + ROUTE,
            'testnod.storage_hosts[0]: is no host name. Write it without scheme and path, like "*.amazonaws.com".',
        ),
        (
            HOST + 'max_report_size = "0 B"\n' + OPEN + ROUTE,
            'server.max_report_size: is nought, and no report is that small. Write "50 MiB", or leave it out.',
        ),
        (
            HOST + 'max_request_size = "1 MiB"\n' + OPEN + ROUTE,
            "server.max_request_size: is smaller than max_report_size. Raise it to max_report_size or more.",
        ),
        (
            HOST + OPEN + '[polling]\nmin = "2m"\n' + ROUTE,
            "polling.max: is shorter than polling.min. Raise it to polling.min or more.",
        ),
        (
            HOST + OPEN + '[delivery]\nfirst_delay = "20m"\n' + ROUTE,
            "delivery.max_delay: is shorter than first_delay. Raise it to first_delay or more.",
        ),
        (
            HOST + OPEN + '[delivery]\nlease = "0s"\n' + ROUTE,
            'delivery.lease: is nought, and would mean without a pause. Write "1s" or more.',
        ),
    ],
)
def test_what_does_not_fit_together_is_named_with_fault_and_remedy(complains, text, complaint):
    assert complains(text) == [complaint]
