"""From image files to uint8 tensors: decode, preprocess, read ahead, resize."""
