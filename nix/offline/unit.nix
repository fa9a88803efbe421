# nixosModules.default -> the text of the unit that the module makes of some settings
module:
let
  lib = import ./nixpkgs/lib.nix;
  pkg = { outPath = "/run/tidegate"; meta.mainProgram = "tidegate"; };
  pkgs = {
    stdenv.hostPlatform.system = "x86_64-linux";
    coreutils = "/run/coreutils";
    formats.toml = { }: {
      type = builtins.isAttrs;
      generate = name: _: "/run/${name}";
    };
  };
  top = module { inherit lib pkgs; };
  evaluate = settings: lib.evalModule (builtins.head top.imports) "tidegate" settings { inherit pkgs; };
  least = { enable = true; package = pkg; component = "/srv/app.wasm"; };
  settings = least // {
    listen = "[::]:80";
    assets = "/srv/public";
    settings.limits.message_bytes_max = 65536;
    extraArgs = [ "--env" "RATE=100%$" ];
    openFirewall = true;
  };
  config = evaluate settings;
  s = config.systemd.services.tidegate;
  value = v: if builtins.isBool v then (if v then "true" else "false") else toString v;
  line = k: v: if builtins.isList v then lib.concatStringsSep "\n" (map (x: "${k}=${value x}") v) else "${k}=${value v}";
  section = a: lib.concatStringsSep "\n" (builtins.attrValues (builtins.mapAttrs line a));
  leastService = (evaluate least).systemd.services.tidegate.serviceConfig;
in
assert evaluate (least // { enable = false; }) == null;
assert config.networking.firewall.allowedTCPPorts == [ 80 ];
assert (evaluate least).networking.firewall.allowedTCPPorts == null;
assert s.serviceConfig.AmbientCapabilities == [ "CAP_NET_BIND_SERVICE" ];
assert leastService.AmbientCapabilities == [ ] && leastService.CapabilityBoundingSet == "";
assert leastService.ExecStart == ''"/run/tidegate/bin/tidegate" "serve" "--listen" "127.0.0.1:8080" "--data" "/var/lib/tidegate/rooms" "/srv/app.wasm"'';
assert lib.hasSuffix ''"--config" "/run/tidegate.toml" "--assets" "/srv/public" "--env" "RATE=100%%$$" "/srv/app.wasm"'' s.serviceConfig.ExecStart;
# the default package has to evaluate as well
assert builtins.isString (toString top.services.tidegate.package.content);
''
  [Unit]
  Description=${s.description}
  Wants=${toString s.wants}
  After=${toString s.after}
  [Service]
  ${lib.concatStringsSep "\n" (builtins.attrValues (builtins.mapAttrs (k: v: "Environment=${k}=${v}") s.environment))}
  ${section s.serviceConfig}
  [Install]
  WantedBy=${toString s.wantedBy}
''
