"""Who is calling, by whichever scheme: tokens, IAM, signatures."""
