"""Datasets (`*_dataset.py`, registered in DATASET_REGISTRY) and the preparation of image folders."""
