"""What a route may ask to be done with a report: broken ones mended, elements left out."""
