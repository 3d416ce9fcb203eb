"""What privacy costs, measured: private steps against plain ones in one process."""
