{ system, overlays ? [ ] }:
let
  lib = import ./lib.nix;
  # written by nix/offline/check: { rust = "/sysroot"; cargoHome = "/root/.cargo"; … }
  host = import ./host.nix;

  filterNull = lib.filter (x: x != null);

  # Not as the builder's last command: coreutils close stderr before they exit, and Nix kills
  # a builder that has.
  run = name: env: script: derivation (env // {
    inherit name system;
    builder = "/bin/bash";
    args = [ "-euo" "pipefail" "-c" "export HOME=$TMPDIR\n${script}\n:" ];
    PATH = "${lib.concatStringsSep ":" (map (p: "${p}/bin") (env.nativeBuildInputs or [ ]))}:/usr/bin:/bin";
  });

  # The machine's cargo and its registry, read only; the sandbox has no network. The registry keeps its
  # path, which is a part of cargo's fingerprints: the kept target directory is then used as it is.
  setup = lockFile: ''
    ${if host.target or null == null then "" else "export CARGO_TARGET_DIR=${host.target}"}
    export CARGO_HOME=${host.cargoHome} CARGO_BUILD_JOBS=''${NIX_BUILD_CORES:-1}
    cp -r $src $TMPDIR/source; chmod -R u+w $TMPDIR/source; cd $TMPDIR/source
    cmp Cargo.lock ${lockFile}
  '';

  rustPlatformWith = rust: {
    cargoSetupHook = null;
    importCargoLock = { lockFile, outputHashes ? { } }: { inherit lockFile; };
    buildRustPackage = { pname, version, src, cargoLock, cargoBuildFlags ? [ ], cargoTestFlags ? [ ], doCheck ? true, nativeBuildInputs ? [ ], buildInputs ? [ ], env ? { }, meta }:
      run "${pname}-${version}" (env // { inherit src; nativeBuildInputs = [ rust ] ++ nativeBuildInputs; }) ''
        ${setup cargoLock.lockFile}
        # nixpkgs builds in release, which takes twice as long and shows nothing more here. The flags
        # have to name packages. The program is built with the features that the whole
        # workspace and its tests select (--examples does that), as .ci/run has built them already:
        # otherwise wasmtime is compiled a second time.
        cargo tree --locked --offline --quiet --depth 0 ${toString cargoBuildFlags} > $TMPDIR/packages
        cargo build --locked --offline --workspace --bin ${meta.mainProgram} --examples
        install -D -t $out/bin ${if host.target or null == null then "target" else host.target}/debug/${meta.mainProgram} # (doCheck: CI runs the tests without Nix)
      '' // { inherit pname version meta; };
  };

  pkgs = self: {
    inherit lib;
    stdenv = {
      hostPlatform = { inherit system; isLinux = lib.hasSuffix "-linux" system; };
      mkDerivation = { name, src, nativeBuildInputs ? [ ], buildPhase, installPhase, dontStrip ? false, dontPatchELF ? false, cargoDeps ? null, meta }:
        run name { inherit src; nativeBuildInputs = filterNull nativeBuildInputs; } ''
          runHook() { :; }
          ${setup cargoDeps.lockFile}
          ${buildPhase}
          [ -z "''${CARGO_TARGET_DIR-}" ] || ln -s $CARGO_TARGET_DIR target
          ${installPhase}
        '' // { inherit meta; };
    };
    makeRustPlatform = { cargo, rustc }: rustPlatformWith cargo;
    rustPlatform = rustPlatformWith host.rust;

    callPackage = f: args:
      let f' = import f; in
      f' (builtins.intersectAttrs (builtins.functionArgs f') self // args);
    mkShell = { packages ? [ ], shellHook ? "" }: run "shell" { inherit packages; } "touch $out";
    runCommand = name: env: script: run name env script;
    writeShellScriptBin = name: text:
      run name { inherit text; passAsFile = [ "text" ]; } ''
        mkdir -p $out/bin; (echo '#!/bin/bash'; cat $textPath) > $out/bin/${name}; chmod +x $out/bin/${name}
      '' // { meta.mainProgram = name; };
    # the dev shell's tools: only their names are looked up
    cargo-component = self.runCommand "cargo-component" { } "touch $out";
    wasm-tools = self.runCommand "wasm-tools" { } "touch $out";
    # JSON, not TOML: the file is not read
    formats.toml = { }: {
      type = builtins.isAttrs;
      generate = name: value: builtins.toFile name (builtins.toJSON value);
    };
    nixfmt-tree = self.runCommand "nixfmt-tree" { } "touch $out";
    testers.runNixOSTest = { name, nodes, testScript }: self.runCommand "vm-test-${name}" { inherit testScript; } "touch $out";
  };
  extend = self: builtins.foldl' (prev: o: prev // o self prev) (pkgs self) overlays;
in
lib.fix extend
