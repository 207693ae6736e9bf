"""The forward model alone, SIE, Sérsic source and PSF, by the simulators of three packages."""
import peer

args = peer.arguments(["lenstronomy", "herculens", "jaxtronomy"])
import numpy as np

if args.name != "lenstronomy":
    import jax

    jax.config.update("jax_enable_x64", args.dtype == "float64")

problem = peer.Problem(args.directory)
n, scale = problem.n, problem.pixel_scale
corner = -(n - 1) / 2 * scale
frame = {"ra_at_xy_0": corner, "dec_at_xy_0": corner, "transform_pix2angle": scale * np.eye(2)}
source = dict(problem.source)

if args.name == "herculens":
    import jax.numpy as jnp

    clip = jnp.clip
    jnp.clip = lambda x, min=None, max=None, *, a_min=None, a_max=None: clip(
        x, a_min if min is None else min, a_max if max is None else max)
    from herculens.Coordinates.pixel_grid import PixelGrid
    from herculens.Instrument.psf import PSF
    from herculens.LensImage.lens_image import LensImage
    from herculens.LightModel.light_model import LightModel
    from herculens.LightModel.Profiles.sersic import Sersic
    from herculens.MassModel.mass_model import MassModel
    from herculens.MassModel.Profiles.sie import SIE

    model = LensImage(
        PixelGrid(nx=n, ny=n, **frame), PSF(psf_type="PIXEL", kernel_point_source=problem.psf),
        lens_mass_model_class=MassModel([SIE()]), source_model_class=LightModel([Sersic(radius_major_axis=True)]),
        kwargs_numerics={"supersampling_factor": 1})

    def image():
        return np.asarray(model.model(kwargs_lens=[problem.lens], kwargs_source=[source], lens_light_add=False,
                                      point_source_add=False))

else:
    # Their R_sersic lies on the product average of the axes.
    e = np.hypot(source["e1"], source["e2"])
    source["R_sersic"] *= np.sqrt((1 - e) / (1 + e))
    if args.name == "lenstronomy":
        from lenstronomy.Data.imaging_data import ImageData
        from lenstronomy.ImSim.image_model import ImageModel
        from lenstronomy.LensModel.lens_model import LensModel
        from lenstronomy.LightModel.light_model import LightModel
    else:
        from jaxtronomy.Data.imaging_data import ImageData
        from jaxtronomy.ImSim.image_model import ImageModel
        from jaxtronomy.LensModel.lens_model import LensModel
        from jaxtronomy.LightModel.light_model import LightModel
    from lenstronomy.Data.psf import PSF

    model = ImageModel(
        ImageData(image_data=np.zeros((n, n)), background_rms=1.0, exposure_time=1.0, **frame),
        PSF(psf_type="PIXEL", kernel_point_source=problem.psf), lens_model_class=LensModel(["SIE"]),
        source_model_class=LightModel(["SERSIC_ELLIPSE"]), kwargs_numerics={"supersampling_factor": 1})

    def image():
        return np.asarray(model.image([problem.lens], [source]))


for _ in range(3):
    result = image()
# All three multiply by the pixel's area.
peer.serve(args, 0.0, [result / scale**2], image)
