"""What reports come wrapped in: compressed bodies and files, and archives of them, all read within bounds."""
