"""Decision students from labeled texts to their folder and server. Knows no Prefect."""
