"""The preparation of pictures in the utilities of NVIDIA's torch.hub entry, written after its definition."""


def nvidias_crop(pixels):
    """uint8 [H, W, 3] -> float64 [300, 300, 3] in 0..1, before it is normalized."""
    from skimage import img_as_float  # Here, so that GPU tests can be collected where it is not installed.
    from skimage.transform import resize

    picture = img_as_float(pixels)
    ratio = picture.shape[1] / picture.shape[0]
    if ratio > 1:
        scaled = resize(picture, (300, int(ratio * 300)))
    elif ratio < 1:
        scaled = resize(picture, (int(300 / ratio), 300))
    else:
        scaled = resize(picture, (300, 300))
    top, left = scaled.shape[0] // 2 - 150, scaled.shape[1] // 2 - 150
    return scaled[top : top + 300, left : left + 300]
