"""Which accelerators the cluster has: nodes, profiles and provisioners in, pools out. Pure."""
