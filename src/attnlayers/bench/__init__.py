"""Attention measured against its peers: what `attnlayers bench` runs. Nothing else imports it."""
