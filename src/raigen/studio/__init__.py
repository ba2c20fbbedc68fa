"""A place to steer in by hand: sliders, twins, a gallery, recipes. The public function is `launch`."""
