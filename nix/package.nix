# The server. Its tests do not run here: they need a browser and built components, and `nix run` would
# compile everything twice. scripts/test runs them.
{ lib, rustPlatform }:
let
  root = ../.;
  manifest = (fromTOML (builtins.readFile (root + "/Cargo.toml"))).workspace.package;
in
rustPlatform.buildRustPackage {
  pname = "tidegate";
  inherit (manifest) version;

  src = import ./source.nix { inherit lib; };
  cargoLock.lockFile = root + "/Cargo.lock";
  cargoBuildFlags = [
    "--package"
    "tidegate-cli"
  ];
  doCheck = false;

  meta = {
    description = "Application server for WebAssembly components";
    license = lib.licenses.asl20;
    mainProgram = "tidegate";
    platforms = lib.platforms.unix;
  };
}
