import os

os.environ["STILLHOUSE_BATCH_PAUSE"] = "0.02"
