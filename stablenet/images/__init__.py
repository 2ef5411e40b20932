"""Images: one decoder and one writer for every command, datasets of photographs and of labeled images, one PSNR."""
