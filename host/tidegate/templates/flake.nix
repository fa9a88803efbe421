{
  description = "{name}, an app for Tidegate";

  inputs = {
    # Where Tidegate is: a folder, or the repository that you have it from.
    tidegate.url = "path:../tidegate";
    nixpkgs.follows = "tidegate/nixpkgs";
    rust-overlay.follows = "tidegate/rust-overlay";
  };

  outputs =
    {
      nixpkgs,
      rust-overlay,
      tidegate,
      ...
    }:
    let
      systems = [
        "x86_64-linux"
        "aarch64-linux"
        "aarch64-darwin"
      ];
      each =
        f:
        nixpkgs.lib.genAttrs systems (
          system:
          f system (
            import nixpkgs {
              inherit system;
              overlays = [ rust-overlay.overlays.default ];
            }
          )
        );
    in
    {
      # nix develop: the compiler with the target of components, and tidegate.
      devShells = each (
        system: pkgs: {
          default = pkgs.mkShell {
            packages = [
              (pkgs.rust-bin.stable.latest.minimal.override { targets = [ "wasm32-wasip2" ]; })
              tidegate.packages.${system}.default
            ];
          };
        }
      );
    };
}
