{
  description = "Tidegate: an application server for WebAssembly components";

  inputs = {
    # Any recent nixpkgs does: the compiler does not come from here (see toolchainFor), so
    # `inputs.tidegate.inputs.nixpkgs.follows = "nixpkgs"` is safe in other people's flakes.
    nixpkgs.url = "github:NixOS/nixpkgs/nixos-26.05";
    # nixpkgs' rustc has no std for wasm32-wasip2. This one has rustup's own toolchains.
    rust-overlay = {
      url = "github:oxalica/rust-overlay";
      inputs.nixpkgs.follows = "nixpkgs";
    };
  };

  outputs =
    {
      self,
      nixpkgs,
      rust-overlay,
    }:
    let
      inherit (nixpkgs) lib;

      systems = [
        "x86_64-linux"
        "aarch64-linux"
        "aarch64-darwin"
      ];

      eachSystem =
        f:
        lib.genAttrs systems (
          system:
          f (
            import nixpkgs {
              inherit system;
              overlays = [ rust-overlay.overlays.default ];
            }
          )
        );

      # One source of truth for the compiler's version: rust-toolchain.toml, which rustup and
      # CI read as well.
      channel = (fromTOML (builtins.readFile ./rust-toolchain.toml)).toolchain.channel;

      # `minimal`: no docs, rust-src or rust-analyzer, since `nix run` has to download it.
      toolchainFor =
        pkgs: pkgs.rust-bin.stable.${channel}.minimal.override { targets = [ "wasm32-wasip2" ]; };

      # Every folder of examples/ is a package of its own name.
      exampleNames = lib.attrNames (
        lib.filterAttrs (_: type: type == "directory") (builtins.readDir ./examples)
      );

      packagesFor =
        pkgs:
        let
          toolchain = toolchainFor pkgs;
          rustPlatform = pkgs.makeRustPlatform {
            cargo = toolchain;
            rustc = toolchain;
          };
        in
        {
          tidegate = pkgs.callPackage ./nix/package.nix { inherit rustPlatform; };
          examples = pkgs.callPackage ./nix/examples.nix {
            inherit rustPlatform toolchain;
            names = exampleNames;
          };
        };
    in
    {
      packages = eachSystem (
        pkgs:
        let
          p = packagesFor pkgs;
        in
        {
          inherit (p) tidegate examples;
          default = p.tidegate;
        }
      );

      # `nix run . -- serve app.wasm` needs no entry here (packages.default has
      # meta.mainProgram); `nix run .#lobby` serves the example of that name.
      apps = eachSystem (
        pkgs:
        let
          p = self.packages.${pkgs.stdenv.hostPlatform.system};
          folder = "${p.examples}/share/tidegate/examples";
          assets =
            name:
            lib.optionalString (builtins.pathExists (
              ./examples + "/${name}/assets"
            )) "--assets ${folder}/${name}/assets";
        in
        lib.genAttrs exampleNames (name: {
          type = "app";
          program = lib.getExe (
            pkgs.writeShellScriptBin "tidegate-${name}" ''
              exec ${lib.getExe p.tidegate} serve ${assets name} "$@" ${folder}/${name}.wasm
            ''
          );
          meta.description = "Serve the ${name} example";
        })
      );

      devShells = eachSystem (pkgs: {
        default = pkgs.mkShell {
          packages = [
            (pkgs.rust-bin.fromRustupToolchainFile ./rust-toolchain.toml)
            pkgs.cargo-component
            pkgs.wasm-tools
          ];
        };
      });

      checks = eachSystem (
        pkgs:
        let
          p = self.packages.${pkgs.stdenv.hostPlatform.system};
        in
        {
          inherit (p) tidegate examples;
          # the built server accepts the built components
          smoke = pkgs.runCommand "tidegate-smoke" { nativeBuildInputs = [ p.tidegate ]; } ''
            export TIDEGATE_CACHE_DIR=$TMPDIR/cache
            for component in ${p.examples}/share/tidegate/examples/*.wasm; do
              tidegate check "$component" >> $out
            done
          '';
        }
      );

      formatter = eachSystem (pkgs: pkgs.nixfmt-tree);

      # For a nixpkgs of your own; its rustc has to be new enough (Cargo.toml's rust-version).
      overlays.default = final: _prev: {
        tidegate = final.callPackage ./nix/package.nix { };
      };

      nixosModules.default =
        { pkgs, ... }:
        {
          imports = [ ./nix/module.nix ];
          services.tidegate.package = lib.mkDefault self.packages.${pkgs.stdenv.hostPlatform.system}.default;
        };

      # A VM test: needs KVM, so not under `checks`. nix build .#nixosTest
      legacyPackages = lib.genAttrs (lib.filter (lib.hasSuffix "-linux") systems) (system: {
        nixosTest = import ./nix/test.nix {
          inherit self;
          pkgs = nixpkgs.legacyPackages.${system};
        };
      });
    };
}
