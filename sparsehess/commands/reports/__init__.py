"""What commands show: tables, plots, stored results."""
