"""What every HTTP server of this project needs: bounded connections, accepted host names, orderly shutdown. Knows no route."""
