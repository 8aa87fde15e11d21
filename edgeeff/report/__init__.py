"""What a person reads: tables on a terminal, the HTML report."""
