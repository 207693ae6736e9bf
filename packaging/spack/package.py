# A recipe for Spack 1.0 or newer: copy it to packages/einfield/package.py of a package repository (spack repo create), and
# run `spack install --no-checksum einfield` in the folder that has the source archive of tools/release.sh. Not built yet.
# No release has an address yet, so the archive is fetched by hand. KissFFT is one header and has no package in Spack.
import os

from spack_repo.builtin.build_systems.cmake import CMakePackage
from spack_repo.builtin.build_systems.cuda import CudaPackage

from spack.package import *


class Einfield(CMakePackage, CudaPackage):
    """Fits strong gravitational lenses: a smooth lens model plus a small neural network for the part of the lens potential
    that the smooth model misses."""

    manual_download = True
    url = f"file://{os.getcwd()}/einfield-0.2.0.tar.gz"

    license("MIT")

    version("0.2.0")

    variant("shared", default=False, description="Build a shared library")

    depends_on("cxx", type="build")
    depends_on("cmake@3.25:", type="build")
    depends_on("pkgconfig", type="build")
    depends_on("cli11", type="build")
    depends_on("eigen@3.4:", type="build")
    depends_on("fmt@9:", type="build")
    depends_on("nlohmann-json@3.11:", type="build")
    depends_on("tomlplusplus", type="build")
    depends_on("cfitsio")
    depends_on("highway@1.0.3:")
    depends_on("cuda@12.8:", when="+cuda")
    depends_on("gnuplot", type="run")

    conflicts("cuda_arch=none", when="+cuda", msg="Name the architectures: cuda_arch=90, for example")
    conflicts("platform=darwin")
    conflicts("platform=windows")

    resource(
        name="kissfft",
        url="https://github.com/mborgerding/kissfft/archive/131.1.0.tar.gz",
        sha256="76c1aac87ddb7258f34b08a13f0eebf9e53afa299857568346aa5c82bcafaf1a",
        placement="kissfft",
    )

    def cmake_args(self):
        args = [
            self.define("EINFIELD_BUILD_TESTS", False),
            self.define("EINFIELD_BUILD_BENCH", False),
            self.define("EINFIELD_ENABLE_CUDA", "ON" if self.spec.satisfies("+cuda") else "OFF"),
            self.define("KISSFFT_INCLUDE_DIR", os.path.join(self.stage.source_path, "kissfft")),
            self.define_from_variant("BUILD_SHARED_LIBS", "shared"),
        ]
        if self.spec.satisfies("+cuda"):
            args.append(self.define("CMAKE_CUDA_ARCHITECTURES", self.spec.variants["cuda_arch"].value))
            args.append(self.define("EINFIELD_CUDA_RUNTIME", "Shared"))
        return args

    @run_after("install")
    @on_package_attributes(run_tests=True)
    def check_version(self):
        einfield = Executable(self.prefix.bin.einfield)
        if str(self.version) not in einfield("version", output=str):
            raise InstallError("einfield version does not say " + str(self.version))
