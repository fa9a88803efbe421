# services.tidegate: a service that serves one component.
{
  config,
  lib,
  pkgs,
  utils,
  ...
}:
let
  cfg = config.services.tidegate;
  toml = pkgs.formats.toml { };
  port = lib.toInt (lib.last (lib.splitString ":" cfg.listen));
  capabilities = lib.optional (port < 1024) "CAP_NET_BIND_SERVICE";
in
{
  options.services.tidegate = {
    enable = lib.mkEnableOption "tidegate, an application server for WebAssembly components";

    package = lib.mkOption {
      type = lib.types.package;
      description = "The tidegate package to run.";
    };

    component = lib.mkOption {
      type = lib.types.path;
      example = lib.literalExpression "./app.wasm";
      description = "The component to serve.";
    };

    assets = lib.mkOption {
      type = lib.types.nullOr lib.types.path;
      default = null;
      example = lib.literalExpression "./public";
      description = "A folder of static files to serve beside the component.";
    };

    listen = lib.mkOption {
      type = lib.types.str;
      default = "127.0.0.1:8080";
      description = "Address and port to listen on.";
    };

    settings = lib.mkOption {
      type = toml.type;
      default = { };
      example = lib.literalExpression "{ server.hosts = [ \"example.org\" ]; limits.message_bytes_max = 65536; }";
      description = ''
        The contents of `tidegate.toml`. They are readable by every user of the machine:
        no secrets here.
      '';
    };

    openFirewall = lib.mkOption {
      type = lib.types.bool;
      default = false;
      description = "Open the port of {option}`services.tidegate.listen` in the firewall.";
    };

    extraArgs = lib.mkOption {
      type = lib.types.listOf lib.types.str;
      default = [ ];
      description = "More arguments for `tidegate serve`.";
    };
  };

  config = lib.mkIf cfg.enable {
    networking.firewall.allowedTCPPorts = lib.mkIf cfg.openFirewall [ port ];

    systemd.services.tidegate = {
      description = "Tidegate";
      wantedBy = [ "multi-user.target" ];
      wants = [ "network-online.target" ];
      after = [ "network-online.target" ];

      # compiled components, which outlive a restart
      environment.TIDEGATE_CACHE_DIR = "%C/tidegate";

      serviceConfig = {
        # "${path}" copies a path literal to the store
        ExecStart = utils.escapeSystemdExecArgs (
          [
            (lib.getExe cfg.package)
            "serve"
            "--listen"
            cfg.listen
            "--data"
            "/var/lib/tidegate/rooms"
          ]
          ++ lib.optionals (cfg.settings != { }) [
            "--config"
            "${toml.generate "tidegate.toml" cfg.settings}"
          ]
          ++ lib.optionals (cfg.assets != null) [
            "--assets"
            "${cfg.assets}"
          ]
          ++ cfg.extraArgs
          ++ [ "${cfg.component}" ]
        );
        ExecReload = "${pkgs.coreutils}/bin/kill -HUP $MAINPID";
        Restart = "on-failure";

        DynamicUser = true;
        StateDirectory = "tidegate"; # storage of rooms
        StateDirectoryMode = "0700";
        CacheDirectory = "tidegate";
        CacheDirectoryMode = "0700"; # compiled code is trusted, so only the service may write it
        LimitNOFILE = 1048576;

        # MemoryDenyWriteExecute is not set: compiled guest code has to become executable.
        AmbientCapabilities = capabilities;
        CapabilityBoundingSet = if capabilities == [ ] then "" else capabilities;
        LockPersonality = true;
        NoNewPrivileges = true;
        PrivateDevices = true;
        ProtectClock = true;
        ProtectControlGroups = true;
        ProtectHome = true;
        ProtectHostname = true;
        ProtectKernelLogs = true;
        ProtectKernelModules = true;
        ProtectKernelTunables = true;
        ProtectProc = "invisible";
        ProtectSystem = "strict";
        RestrictAddressFamilies = [
          "AF_INET"
          "AF_INET6"
          "AF_UNIX"
        ];
        RestrictNamespaces = true;
        RestrictRealtime = true;
        RestrictSUIDSGID = true;
        SystemCallArchitectures = "native";
        SystemCallErrorNumber = "EPERM";
        SystemCallFilter = [
          "@system-service"
          "~@privileged"
        ];
        UMask = "0077";
      };
    };
  };
}
