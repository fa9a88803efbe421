# The example components and their web pages. Not buildRustPackage: its build hook always
# passes --target <host platform>, and there is nothing here to test or strip on the host.
{
  lib,
  stdenv,
  rustPlatform,
  toolchain,
  names,
}:
stdenv.mkDerivation {
  name = "tidegate-examples";

  src = import ./source.nix { inherit lib; };
  cargoDeps = rustPlatform.importCargoLock { lockFile = ../Cargo.lock; };
  nativeBuildInputs = [
    toolchain
    rustPlatform.cargoSetupHook
  ];

  buildPhase = ''
    runHook preBuild
    cargo build --offline --locked --release --target wasm32-wasip2 ${
      lib.concatMapStringsSep " " (name: "--package ${name}") names
    }
    runHook postBuild
  '';

  # share/tidegate/examples/NAME.wasm and, where it has a web page, NAME/assets
  installPhase = ''
    runHook preInstall
    for name in ${lib.concatStringsSep " " names}; do
      install -Dm644 -t $out/share/tidegate/examples target/wasm32-wasip2/release/$name.wasm
      if [ -d examples/$name/assets ]; then
        mkdir $out/share/tidegate/examples/$name
        cp -r examples/$name/assets $out/share/tidegate/examples/$name/
      fi
    done
    runHook postInstall
  '';

  # wasm is not ELF, so it must not be stripped or patched
  dontStrip = true;
  dontPatchELF = true;

  meta.description = "Example components for tidegate";
}
