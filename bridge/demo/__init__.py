"""`bridge demo`: a gateway and the sandbox on this machine, with four builds that upload reports."""
