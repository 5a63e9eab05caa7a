"""Datasets (`*_dataset.py`, registered in BasicSR's DATASET_REGISTRY) and the preparation of image folders."""
