"""What operators reach: health with reasons, metrics, and the API."""
