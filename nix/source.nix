# Exactly the files that cargo reads, so that a change of flake.nix, documents or CI rebuilds nothing.
{ lib }:
let
  root = ../.;
in
lib.fileset.toSource {
  inherit root;
  fileset = lib.fileset.unions [
    (root + "/Cargo.toml")
    (root + "/Cargo.lock")
    (root + "/rust-toolchain.toml")
    (root + "/bench")
    # The guide's crate is a member of the workspace; its pages are not read.
    (root + "/docs/Cargo.toml")
    (root + "/docs/build.rs")
    (root + "/docs/guide.rs")
    (root + "/examples")
    (root + "/guest-sdk")
    (root + "/host")
    (root + "/wit")
  ];
}
