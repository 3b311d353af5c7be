"""The origin's question, answered again: what its 3-D U-Net needs of a server, by size, batch, framework and use.

The network is that of IntelAI/unet (16 base filters, Adam, binary cross-entropy) at cubes of 32 to 320 and batches of 1 to 16. What fits
this machine is measured, each case in a process of its own; the rest is predicted; the two are never mixed.
"""
