import os

# No test may reach a hub or a tracing service, and a run in a test is not the user's.
os.environ.update(HF_HUB_OFFLINE="1", LANGSMITH_TRACING="false", DO_NOT_TRACK="1")
for name in ("PREFECT_API_URL", "OPENAI_API_KEY", "STILLHOUSE_RUNS"):
    os.environ.pop(name, None)

pytest_plugins = ["tests.s3"]
