"""Which tasks should be trained together: a warm-up shows how they relate; then one network is trained per group."""
