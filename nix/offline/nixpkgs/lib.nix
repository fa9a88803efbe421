let
  lib = {
    genAttrs = names: f: builtins.listToAttrs (map (name: { inherit name; value = f name; }) names);
    inherit (builtins) attrNames filter concatStringsSep;
    concatMapStringsSep = sep: f: l: lib.concatStringsSep sep (map f l);
    filterAttrs = keep: a: removeAttrs a (lib.filter (n: !keep n a.${n}) (lib.attrNames a));
    optional = cond: x: if cond then [ x ] else [ ];
    optionals = cond: l: if cond then l else [ ];
    optionalString = cond: s: if cond then s else "";
    hasSuffix = suffix: s:
      let n = builtins.stringLength suffix; l = builtins.stringLength s;
      in n <= l && builtins.substring (l - n) n s == suffix;
    last = l: builtins.elemAt l (builtins.length l - 1);
    toInt = s: builtins.fromJSON s;
    splitString = sep: s: builtins.filter builtins.isString (builtins.split (lib.escapeRegex sep) s);
    escapeRegex = builtins.replaceStrings [ "." "[" ] [ "\\." "\\[" ];
    getExe = p: "${p}/bin/${p.meta.mainProgram}";
    fix = f: let x = f x; in x;

    licenses = { asl20 = { spdxId = "Apache-2.0"; }; mit = { spdxId = "MIT"; }; };
    platforms = { unix = [ "x86_64-linux" "aarch64-linux" "aarch64-darwin" ]; linux = [ "x86_64-linux" "aarch64-linux" ]; };

    # filesets are what they are made of; every path has to exist, as in nixpkgs
    fileset = {
      unions = map (p: if builtins.pathExists p then p else throw "lib.fileset.unions: ${toString p} does not exist");
      toSource = { root, fileset }: builtins.path {
        path = root;
        name = "source";
        filter = path: _type: builtins.any (p:
          let p' = toString p; in
          path == p' || lib.hasPrefix "${p'}/" path || lib.hasPrefix "${path}/" p') fileset;
      };
    };
    hasPrefix = prefix: s: builtins.substring 0 (builtins.stringLength prefix) s == prefix;

    # the module system, as far as one module with flat options needs it
    mkIf = cond: content: { _mk = "if"; inherit cond content; };
    mkDefault = content: { _mk = "default"; inherit content; };
    literalExpression = text: { inherit text; };
    mkOption = { type, default ? null, defaultText ? null, example ? null, description }: { _mk = "option"; inherit type default; };
    mkEnableOption = _: { _mk = "option"; type = lib.types.bool; default = false; };
    types = {
      bool = builtins.isBool; str = builtins.isString; int = builtins.isInt;
      port = p: builtins.isInt p && p > 0 && p < 65536;
      path = p: builtins.isPath p || lib.hasPrefix "/" p; package = p: p ? outPath;
      listOf = t: l: builtins.isList l && builtins.all t l;
      nullOr = t: v: v == null || t v;
      attrsOf = t: a: builtins.isAttrs a && builtins.all t (builtins.attrValues a);
    };
    # nixos/lib/utils.nix, which NixOS hands to every module
    utils.escapeSystemdExecArgs = lib.concatMapStringsSep " " (s:
      builtins.replaceStrings [ "%" "$" ] [ "%%" "$$" ] (builtins.toJSON s));

    # evalModule ./module.nix "tidegate" { enable = true; ... } -> config, types checked
    evalModule = module: name: settings: args:
      let
        resolve = v:
          if v ? _mk && v._mk == "if" then (if v.cond then resolve v.content else null)
          else if v ? _mk then resolve v.content
          else if builtins.isAttrs v && !(v ? outPath) then builtins.mapAttrs (_: resolve) v
          else if builtins.isList v then map resolve v else v;
        m = import module (args // { inherit lib; inherit (lib) utils; config.services.${name} = values; });
        opts = m.options.services.${name};
        unknown = builtins.attrNames (removeAttrs settings (builtins.attrNames opts));
        values = builtins.mapAttrs (n: o:
          let v = settings.${n} or o.default; in
          if o.type v then v else throw "services.${name}.${n} has the wrong type") opts;
      in
      if unknown != [ ] then throw "no such options: ${toString unknown}" else resolve m.config;
  };
in
lib
