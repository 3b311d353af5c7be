"""Inference over a volume in windows: joined without their halos (tiles), or added up as nnU-Net or MONAI does it."""
