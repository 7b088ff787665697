"""CodeArts Check: when to fetch its report, and the suite made from it."""
