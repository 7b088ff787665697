"""What CI and operators reach: uploads, status, webhook, proxy, health and the admin API."""
