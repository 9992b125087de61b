"""fairseq datasets over our manifests."""
