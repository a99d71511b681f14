"""What came of runs, for people and for other programs: tables, checks, summary files. Reads
records and predictions only."""
