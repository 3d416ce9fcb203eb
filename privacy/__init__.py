"""The privacy floor: mechanism, accounting, ledger and egress. Imports nothing of the project and can be read alone."""
