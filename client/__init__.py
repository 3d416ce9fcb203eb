"""One hospital's side: its data, its policy, its ledger and its one door out."""
