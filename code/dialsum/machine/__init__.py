"""What this machine has: devices, precisions, memory, and what they allow."""
