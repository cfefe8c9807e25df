"""The eBPF runtime over BCC: what the kernel can do, programs, maps, rings, struct layouts."""
