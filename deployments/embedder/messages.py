"""How large the messages between the replicas of the ingress and of a model may be."""

import os

# Ray's own limit for one message, and what all but a stack or its vectors may take of it.
MESSAGE_BYTES = int(os.environ.get("RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH", 4 * 1024 * 1024))
ENVELOPE_BYTES = 64 * 1024

STACK_BYTES = MESSAGE_BYTES - ENVELOPE_BYTES
"""Of the largest stack of pixels, or of its vectors."""
