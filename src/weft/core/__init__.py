"""Networks and operators on arrays: never imports AnnData."""
