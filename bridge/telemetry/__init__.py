"""What the bridge tells about itself: log lines and metrics.

It must not know who speaks: rooms hand in events and numbers, and nothing here calls back.
"""
