# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_temps_global_optspecs
    string join \n runtime-dir= h/help V/version
end

function __fish_temps_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_temps_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_temps_using_subcommand
    set -l cmd (__fish_temps_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c temps -n "__fish_temps_needs_command" -l runtime-dir -d 'The sockets of the instance to talk to, or to start' -r -f -a "(__fish_complete_directories)"
complete -c temps -n "__fish_temps_needs_command" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c temps -n "__fish_temps_needs_command" -s V -l version -d 'Print version'
complete -c temps -n "__fish_temps_needs_command" -f -a "up" -d 'Run the whole platform in the foreground, as an ordinary user'
complete -c temps -n "__fish_temps_needs_command" -f -a "setup" -d 'Set up an installed platform, or change how it is set up'
complete -c temps -n "__fish_temps_needs_command" -f -a "deploy" -d 'Put a new release of an app into service; make the app if it is new'
complete -c temps -n "__fish_temps_needs_command" -f -a "redeploy" -d 'Put a release of an app into service anew, with the variables and settings of now'
complete -c temps -n "__fish_temps_needs_command" -f -a "rollback" -d 'Put an earlier release of an app back into service'
complete -c temps -n "__fish_temps_needs_command" -f -a "logs" -d 'Show what an app or its build printed'
complete -c temps -n "__fish_temps_needs_command" -f -a "status" -d 'Show how the platform and its apps are'
complete -c temps -n "__fish_temps_needs_command" -f -a "doctor" -d 'Look for what is wrong, and say what to do about it'
complete -c temps -n "__fish_temps_needs_command" -f -a "reconcile" -d 'Bring what runs in line with what should run'
complete -c temps -n "__fish_temps_needs_command" -f -a "app" -d 'See and remove apps'
complete -c temps -n "__fish_temps_needs_command" -f -a "release" -d 'See the releases of an app'
complete -c temps -n "__fish_temps_needs_command" -f -a "env" -d 'Set the environment variables of an app'
complete -c temps -n "__fish_temps_needs_command" -f -a "domain" -d 'Choose the hosts an app answers to'
complete -c temps -n "__fish_temps_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c temps -n "__fish_temps_using_subcommand up" -l state -d 'Where everything is kept that shall outlive the process' -r -f -a "(__fish_complete_directories)"
complete -c temps -n "__fish_temps_using_subcommand up" -l http -d 'Where to serve HTTP; port 0 chooses a free one' -r
complete -c temps -n "__fish_temps_using_subcommand up" -l https -d 'Where to serve HTTPS; port 0 chooses a free one' -r
complete -c temps -n "__fish_temps_using_subcommand up" -l base-domain -d 'The domain under which apps get their hosts' -r
complete -c temps -n "__fish_temps_using_subcommand up" -l runtime-dir -d 'The sockets of the instance to talk to, or to start' -r -f -a "(__fish_complete_directories)"
complete -c temps -n "__fish_temps_using_subcommand up" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c temps -n "__fish_temps_using_subcommand setup" -l base-domain -d 'The domain under which apps get their hosts: APP.HOST' -r -f -a "(__fish_print_hostnames)"
complete -c temps -n "__fish_temps_using_subcommand setup" -l operator -d 'A user who may operate the platform: deploy, see secrets of apps, stop everything. Repeatable' -r -f -a "(__fish_complete_users)"
complete -c temps -n "__fish_temps_using_subcommand setup" -l acme-mail -d 'The address for the certificate authority; not built yet, and refused' -r
complete -c temps -n "__fish_temps_using_subcommand setup" -l root -d 'Set up the system in this directory, which does not run' -r -F
complete -c temps -n "__fish_temps_using_subcommand setup" -l runtime-dir -d 'The sockets of the instance to talk to, or to start' -r -f -a "(__fish_complete_directories)"
complete -c temps -n "__fish_temps_using_subcommand setup" -l yes -d 'Do not ask'
complete -c temps -n "__fish_temps_using_subcommand setup" -l dry-run -d 'Show what would change, and change nothing'
complete -c temps -n "__fish_temps_using_subcommand setup" -l check -d 'Only say what is in the way; the exit status is 1 if the platform cannot serve'
complete -c temps -n "__fish_temps_using_subcommand setup" -l json -d 'Print results as JSON on stdout, errors too'
complete -c temps -n "__fish_temps_using_subcommand setup" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c temps -n "__fish_temps_using_subcommand deploy" -l source -d 'A directory of source: with a Dockerfile or a Procfile' -r -f -a "(__fish_complete_directories)"
complete -c temps -n "__fish_temps_using_subcommand deploy" -l image -d 'An image that the container engine has or can pull' -r
complete -c temps -n "__fish_temps_using_subcommand deploy" -l git -d 'A git repository, by URL or path, at a branch, tag or commit' -r -f
complete -c temps -n "__fish_temps_using_subcommand deploy" -l static -d 'A directory of files to serve as they are' -r -f -a "(__fish_complete_directories)"
complete -c temps -n "__fish_temps_using_subcommand deploy" -l runtime -d 'How to run it [default: as before; for a new app, by its content]' -r -f -a "docker\t''
process\t''
systemd\t''
static\t''"
complete -c temps -n "__fish_temps_using_subcommand deploy" -l socket-activated -d 'Let a request start it: the socket is there before it, and it may end when it is idle' -r -f -a "true\t''
false\t''"
complete -c temps -n "__fish_temps_using_subcommand deploy" -l domain -d 'A host that the app shall answer to, beside its own' -r -f -a "(__fish_print_hostnames)"
complete -c temps -n "__fish_temps_using_subcommand deploy" -l health -d 'Path that answers 200 to 399 when the app is healthy, such as /health' -r
complete -c temps -n "__fish_temps_using_subcommand deploy" -l health-timeout -d 'How long it may take to become healthy, such as 90s' -r
complete -c temps -n "__fish_temps_using_subcommand deploy" -l watch -d 'How long to watch the new release and roll it back if it turns bad, such as 2m; 0: not at all' -r
complete -c temps -n "__fish_temps_using_subcommand deploy" -l env -d 'The environment; there is only `production` yet' -r
complete -c temps -n "__fish_temps_using_subcommand deploy" -l label -d 'What `release list` calls the content [default: the directory\'s name]' -r
complete -c temps -n "__fish_temps_using_subcommand deploy" -l runtime-dir -d 'The sockets of the instance to talk to, or to start' -r -f -a "(__fish_complete_directories)"
complete -c temps -n "__fish_temps_using_subcommand deploy" -l spa -d 'With --static: answer unknown paths with /index.html (single-page applications)'
complete -c temps -n "__fish_temps_using_subcommand deploy" -l no-wait -d 'Return when the deployment is queued'
complete -c temps -n "__fish_temps_using_subcommand deploy" -l json -d 'Print results as JSON on stdout, errors too'
complete -c temps -n "__fish_temps_using_subcommand deploy" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c temps -n "__fish_temps_using_subcommand redeploy" -l runtime-dir -d 'The sockets of the instance to talk to, or to start' -r -f -a "(__fish_complete_directories)"
complete -c temps -n "__fish_temps_using_subcommand redeploy" -l no-wait -d 'Return when the deployment is queued'
complete -c temps -n "__fish_temps_using_subcommand redeploy" -l json -d 'Print results as JSON on stdout, errors too'
complete -c temps -n "__fish_temps_using_subcommand redeploy" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c temps -n "__fish_temps_using_subcommand rollback" -l runtime-dir -d 'The sockets of the instance to talk to, or to start' -r -f -a "(__fish_complete_directories)"
complete -c temps -n "__fish_temps_using_subcommand rollback" -l no-wait -d 'Return when the deployment is queued'
complete -c temps -n "__fish_temps_using_subcommand rollback" -l json -d 'Print results as JSON on stdout, errors too'
complete -c temps -n "__fish_temps_using_subcommand rollback" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c temps -n "__fish_temps_using_subcommand logs" -l release -d 'Only this release' -r
complete -c temps -n "__fish_temps_using_subcommand logs" -s n -l lines -d 'Begin with so many of the last lines [default: all, with --follow 100]' -r
complete -c temps -n "__fish_temps_using_subcommand logs" -l runtime-dir -d 'The sockets of the instance to talk to, or to start' -r -f -a "(__fish_complete_directories)"
complete -c temps -n "__fish_temps_using_subcommand logs" -s f -l follow -d 'Wait for more and show it as it comes'
complete -c temps -n "__fish_temps_using_subcommand logs" -l build -d 'What building the latest release printed, instead of what the app prints'
complete -c temps -n "__fish_temps_using_subcommand logs" -l json -d 'Print results as JSON on stdout, errors too'
complete -c temps -n "__fish_temps_using_subcommand logs" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c temps -n "__fish_temps_using_subcommand status" -l runtime-dir -d 'The sockets of the instance to talk to, or to start' -r -f -a "(__fish_complete_directories)"
complete -c temps -n "__fish_temps_using_subcommand status" -l json -d 'Print results as JSON on stdout, errors too'
complete -c temps -n "__fish_temps_using_subcommand status" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c temps -n "__fish_temps_using_subcommand doctor" -l runtime-dir -d 'The sockets of the instance to talk to, or to start' -r -f -a "(__fish_complete_directories)"
complete -c temps -n "__fish_temps_using_subcommand doctor" -l json -d 'Print results as JSON on stdout, errors too'
complete -c temps -n "__fish_temps_using_subcommand doctor" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c temps -n "__fish_temps_using_subcommand reconcile" -l runtime-dir -d 'The sockets of the instance to talk to, or to start' -r -f -a "(__fish_complete_directories)"
complete -c temps -n "__fish_temps_using_subcommand reconcile" -l json -d 'Print results as JSON on stdout, errors too'
complete -c temps -n "__fish_temps_using_subcommand reconcile" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c temps -n "__fish_temps_using_subcommand app; and not __fish_seen_subcommand_from list show destroy help" -l runtime-dir -d 'The sockets of the instance to talk to, or to start' -r -f -a "(__fish_complete_directories)"
complete -c temps -n "__fish_temps_using_subcommand app; and not __fish_seen_subcommand_from list show destroy help" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c temps -n "__fish_temps_using_subcommand app; and not __fish_seen_subcommand_from list show destroy help" -f -a "list" -d 'List the apps'
complete -c temps -n "__fish_temps_using_subcommand app; and not __fish_seen_subcommand_from list show destroy help" -f -a "show" -d 'Show one app: its hosts, instances and deployment'
complete -c temps -n "__fish_temps_using_subcommand app; and not __fish_seen_subcommand_from list show destroy help" -f -a "destroy" -d 'Remove an app with its releases, variables and logs'
complete -c temps -n "__fish_temps_using_subcommand app; and not __fish_seen_subcommand_from list show destroy help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c temps -n "__fish_temps_using_subcommand app; and __fish_seen_subcommand_from list" -l runtime-dir -d 'The sockets of the instance to talk to, or to start' -r -f -a "(__fish_complete_directories)"
complete -c temps -n "__fish_temps_using_subcommand app; and __fish_seen_subcommand_from list" -l json -d 'Print results as JSON on stdout, errors too'
complete -c temps -n "__fish_temps_using_subcommand app; and __fish_seen_subcommand_from list" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c temps -n "__fish_temps_using_subcommand app; and __fish_seen_subcommand_from show" -l runtime-dir -d 'The sockets of the instance to talk to, or to start' -r -f -a "(__fish_complete_directories)"
complete -c temps -n "__fish_temps_using_subcommand app; and __fish_seen_subcommand_from show" -l json -d 'Print results as JSON on stdout, errors too'
complete -c temps -n "__fish_temps_using_subcommand app; and __fish_seen_subcommand_from show" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c temps -n "__fish_temps_using_subcommand app; and __fish_seen_subcommand_from destroy" -l runtime-dir -d 'The sockets of the instance to talk to, or to start' -r -f -a "(__fish_complete_directories)"
complete -c temps -n "__fish_temps_using_subcommand app; and __fish_seen_subcommand_from destroy" -l yes -d 'Do not ask'
complete -c temps -n "__fish_temps_using_subcommand app; and __fish_seen_subcommand_from destroy" -l json -d 'Print results as JSON on stdout, errors too'
complete -c temps -n "__fish_temps_using_subcommand app; and __fish_seen_subcommand_from destroy" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c temps -n "__fish_temps_using_subcommand app; and __fish_seen_subcommand_from help" -f -a "list" -d 'List the apps'
complete -c temps -n "__fish_temps_using_subcommand app; and __fish_seen_subcommand_from help" -f -a "show" -d 'Show one app: its hosts, instances and deployment'
complete -c temps -n "__fish_temps_using_subcommand app; and __fish_seen_subcommand_from help" -f -a "destroy" -d 'Remove an app with its releases, variables and logs'
complete -c temps -n "__fish_temps_using_subcommand app; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c temps -n "__fish_temps_using_subcommand release; and not __fish_seen_subcommand_from list cancel help" -l runtime-dir -d 'The sockets of the instance to talk to, or to start' -r -f -a "(__fish_complete_directories)"
complete -c temps -n "__fish_temps_using_subcommand release; and not __fish_seen_subcommand_from list cancel help" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c temps -n "__fish_temps_using_subcommand release; and not __fish_seen_subcommand_from list cancel help" -f -a "list" -d 'List the releases of an app, latest first'
complete -c temps -n "__fish_temps_using_subcommand release; and not __fish_seen_subcommand_from list cancel help" -f -a "cancel" -d 'Cancel the deployment of a release that does not serve yet'
complete -c temps -n "__fish_temps_using_subcommand release; and not __fish_seen_subcommand_from list cancel help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c temps -n "__fish_temps_using_subcommand release; and __fish_seen_subcommand_from list" -l runtime-dir -d 'The sockets of the instance to talk to, or to start' -r -f -a "(__fish_complete_directories)"
complete -c temps -n "__fish_temps_using_subcommand release; and __fish_seen_subcommand_from list" -l json -d 'Print results as JSON on stdout, errors too'
complete -c temps -n "__fish_temps_using_subcommand release; and __fish_seen_subcommand_from list" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c temps -n "__fish_temps_using_subcommand release; and __fish_seen_subcommand_from cancel" -l runtime-dir -d 'The sockets of the instance to talk to, or to start' -r -f -a "(__fish_complete_directories)"
complete -c temps -n "__fish_temps_using_subcommand release; and __fish_seen_subcommand_from cancel" -l json -d 'Print results as JSON on stdout, errors too'
complete -c temps -n "__fish_temps_using_subcommand release; and __fish_seen_subcommand_from cancel" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c temps -n "__fish_temps_using_subcommand release; and __fish_seen_subcommand_from help" -f -a "list" -d 'List the releases of an app, latest first'
complete -c temps -n "__fish_temps_using_subcommand release; and __fish_seen_subcommand_from help" -f -a "cancel" -d 'Cancel the deployment of a release that does not serve yet'
complete -c temps -n "__fish_temps_using_subcommand release; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c temps -n "__fish_temps_using_subcommand env; and not __fish_seen_subcommand_from set unset list help" -l runtime-dir -d 'The sockets of the instance to talk to, or to start' -r -f -a "(__fish_complete_directories)"
complete -c temps -n "__fish_temps_using_subcommand env; and not __fish_seen_subcommand_from set unset list help" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c temps -n "__fish_temps_using_subcommand env; and not __fish_seen_subcommand_from set unset list help" -f -a "set" -d 'Set variables, which the next release gets'
complete -c temps -n "__fish_temps_using_subcommand env; and not __fish_seen_subcommand_from set unset list help" -f -a "unset" -d 'Unset variables'
complete -c temps -n "__fish_temps_using_subcommand env; and not __fish_seen_subcommand_from set unset list help" -f -a "list" -d 'List the variables'
complete -c temps -n "__fish_temps_using_subcommand env; and not __fish_seen_subcommand_from set unset list help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c temps -n "__fish_temps_using_subcommand env; and __fish_seen_subcommand_from set" -l file -d 'A file of NAME=VALUE lines; `-` is stdin' -r -F
complete -c temps -n "__fish_temps_using_subcommand env; and __fish_seen_subcommand_from set" -l runtime-dir -d 'The sockets of the instance to talk to, or to start' -r -f -a "(__fish_complete_directories)"
complete -c temps -n "__fish_temps_using_subcommand env; and __fish_seen_subcommand_from set" -l json -d 'Print results as JSON on stdout, errors too'
complete -c temps -n "__fish_temps_using_subcommand env; and __fish_seen_subcommand_from set" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c temps -n "__fish_temps_using_subcommand env; and __fish_seen_subcommand_from unset" -l runtime-dir -d 'The sockets of the instance to talk to, or to start' -r -f -a "(__fish_complete_directories)"
complete -c temps -n "__fish_temps_using_subcommand env; and __fish_seen_subcommand_from unset" -l json -d 'Print results as JSON on stdout, errors too'
complete -c temps -n "__fish_temps_using_subcommand env; and __fish_seen_subcommand_from unset" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c temps -n "__fish_temps_using_subcommand env; and __fish_seen_subcommand_from list" -l runtime-dir -d 'The sockets of the instance to talk to, or to start' -r -f -a "(__fish_complete_directories)"
complete -c temps -n "__fish_temps_using_subcommand env; and __fish_seen_subcommand_from list" -l reveal -d 'Show the values, which may be secrets'
complete -c temps -n "__fish_temps_using_subcommand env; and __fish_seen_subcommand_from list" -l json -d 'Print results as JSON on stdout, errors too'
complete -c temps -n "__fish_temps_using_subcommand env; and __fish_seen_subcommand_from list" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c temps -n "__fish_temps_using_subcommand env; and __fish_seen_subcommand_from help" -f -a "set" -d 'Set variables, which the next release gets'
complete -c temps -n "__fish_temps_using_subcommand env; and __fish_seen_subcommand_from help" -f -a "unset" -d 'Unset variables'
complete -c temps -n "__fish_temps_using_subcommand env; and __fish_seen_subcommand_from help" -f -a "list" -d 'List the variables'
complete -c temps -n "__fish_temps_using_subcommand env; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c temps -n "__fish_temps_using_subcommand domain; and not __fish_seen_subcommand_from add remove list help" -l runtime-dir -d 'The sockets of the instance to talk to, or to start' -r -f -a "(__fish_complete_directories)"
complete -c temps -n "__fish_temps_using_subcommand domain; and not __fish_seen_subcommand_from add remove list help" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c temps -n "__fish_temps_using_subcommand domain; and not __fish_seen_subcommand_from add remove list help" -f -a "add" -d 'Let an app answer to more hosts'
complete -c temps -n "__fish_temps_using_subcommand domain; and not __fish_seen_subcommand_from add remove list help" -f -a "remove" -d 'Take hosts away from an app'
complete -c temps -n "__fish_temps_using_subcommand domain; and not __fish_seen_subcommand_from add remove list help" -f -a "list" -d 'List the hosts of an app, its own first'
complete -c temps -n "__fish_temps_using_subcommand domain; and not __fish_seen_subcommand_from add remove list help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c temps -n "__fish_temps_using_subcommand domain; and __fish_seen_subcommand_from add" -l runtime-dir -d 'The sockets of the instance to talk to, or to start' -r -f -a "(__fish_complete_directories)"
complete -c temps -n "__fish_temps_using_subcommand domain; and __fish_seen_subcommand_from add" -l json -d 'Print results as JSON on stdout, errors too'
complete -c temps -n "__fish_temps_using_subcommand domain; and __fish_seen_subcommand_from add" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c temps -n "__fish_temps_using_subcommand domain; and __fish_seen_subcommand_from remove" -l runtime-dir -d 'The sockets of the instance to talk to, or to start' -r -f -a "(__fish_complete_directories)"
complete -c temps -n "__fish_temps_using_subcommand domain; and __fish_seen_subcommand_from remove" -l json -d 'Print results as JSON on stdout, errors too'
complete -c temps -n "__fish_temps_using_subcommand domain; and __fish_seen_subcommand_from remove" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c temps -n "__fish_temps_using_subcommand domain; and __fish_seen_subcommand_from list" -l runtime-dir -d 'The sockets of the instance to talk to, or to start' -r -f -a "(__fish_complete_directories)"
complete -c temps -n "__fish_temps_using_subcommand domain; and __fish_seen_subcommand_from list" -l json -d 'Print results as JSON on stdout, errors too'
complete -c temps -n "__fish_temps_using_subcommand domain; and __fish_seen_subcommand_from list" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c temps -n "__fish_temps_using_subcommand domain; and __fish_seen_subcommand_from help" -f -a "add" -d 'Let an app answer to more hosts'
complete -c temps -n "__fish_temps_using_subcommand domain; and __fish_seen_subcommand_from help" -f -a "remove" -d 'Take hosts away from an app'
complete -c temps -n "__fish_temps_using_subcommand domain; and __fish_seen_subcommand_from help" -f -a "list" -d 'List the hosts of an app, its own first'
complete -c temps -n "__fish_temps_using_subcommand domain; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c temps -n "__fish_temps_using_subcommand help; and not __fish_seen_subcommand_from up setup deploy redeploy rollback logs status doctor reconcile app release env domain help" -f -a "up" -d 'Run the whole platform in the foreground, as an ordinary user'
complete -c temps -n "__fish_temps_using_subcommand help; and not __fish_seen_subcommand_from up setup deploy redeploy rollback logs status doctor reconcile app release env domain help" -f -a "setup" -d 'Set up an installed platform, or change how it is set up'
complete -c temps -n "__fish_temps_using_subcommand help; and not __fish_seen_subcommand_from up setup deploy redeploy rollback logs status doctor reconcile app release env domain help" -f -a "deploy" -d 'Put a new release of an app into service; make the app if it is new'
complete -c temps -n "__fish_temps_using_subcommand help; and not __fish_seen_subcommand_from up setup deploy redeploy rollback logs status doctor reconcile app release env domain help" -f -a "redeploy" -d 'Put a release of an app into service anew, with the variables and settings of now'
complete -c temps -n "__fish_temps_using_subcommand help; and not __fish_seen_subcommand_from up setup deploy redeploy rollback logs status doctor reconcile app release env domain help" -f -a "rollback" -d 'Put an earlier release of an app back into service'
complete -c temps -n "__fish_temps_using_subcommand help; and not __fish_seen_subcommand_from up setup deploy redeploy rollback logs status doctor reconcile app release env domain help" -f -a "logs" -d 'Show what an app or its build printed'
complete -c temps -n "__fish_temps_using_subcommand help; and not __fish_seen_subcommand_from up setup deploy redeploy rollback logs status doctor reconcile app release env domain help" -f -a "status" -d 'Show how the platform and its apps are'
complete -c temps -n "__fish_temps_using_subcommand help; and not __fish_seen_subcommand_from up setup deploy redeploy rollback logs status doctor reconcile app release env domain help" -f -a "doctor" -d 'Look for what is wrong, and say what to do about it'
complete -c temps -n "__fish_temps_using_subcommand help; and not __fish_seen_subcommand_from up setup deploy redeploy rollback logs status doctor reconcile app release env domain help" -f -a "reconcile" -d 'Bring what runs in line with what should run'
complete -c temps -n "__fish_temps_using_subcommand help; and not __fish_seen_subcommand_from up setup deploy redeploy rollback logs status doctor reconcile app release env domain help" -f -a "app" -d 'See and remove apps'
complete -c temps -n "__fish_temps_using_subcommand help; and not __fish_seen_subcommand_from up setup deploy redeploy rollback logs status doctor reconcile app release env domain help" -f -a "release" -d 'See the releases of an app'
complete -c temps -n "__fish_temps_using_subcommand help; and not __fish_seen_subcommand_from up setup deploy redeploy rollback logs status doctor reconcile app release env domain help" -f -a "env" -d 'Set the environment variables of an app'
complete -c temps -n "__fish_temps_using_subcommand help; and not __fish_seen_subcommand_from up setup deploy redeploy rollback logs status doctor reconcile app release env domain help" -f -a "domain" -d 'Choose the hosts an app answers to'
complete -c temps -n "__fish_temps_using_subcommand help; and not __fish_seen_subcommand_from up setup deploy redeploy rollback logs status doctor reconcile app release env domain help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c temps -n "__fish_temps_using_subcommand help; and __fish_seen_subcommand_from app" -f -a "list" -d 'List the apps'
complete -c temps -n "__fish_temps_using_subcommand help; and __fish_seen_subcommand_from app" -f -a "show" -d 'Show one app: its hosts, instances and deployment'
complete -c temps -n "__fish_temps_using_subcommand help; and __fish_seen_subcommand_from app" -f -a "destroy" -d 'Remove an app with its releases, variables and logs'
complete -c temps -n "__fish_temps_using_subcommand help; and __fish_seen_subcommand_from release" -f -a "list" -d 'List the releases of an app, latest first'
complete -c temps -n "__fish_temps_using_subcommand help; and __fish_seen_subcommand_from release" -f -a "cancel" -d 'Cancel the deployment of a release that does not serve yet'
complete -c temps -n "__fish_temps_using_subcommand help; and __fish_seen_subcommand_from env" -f -a "set" -d 'Set variables, which the next release gets'
complete -c temps -n "__fish_temps_using_subcommand help; and __fish_seen_subcommand_from env" -f -a "unset" -d 'Unset variables'
complete -c temps -n "__fish_temps_using_subcommand help; and __fish_seen_subcommand_from env" -f -a "list" -d 'List the variables'
complete -c temps -n "__fish_temps_using_subcommand help; and __fish_seen_subcommand_from domain" -f -a "add" -d 'Let an app answer to more hosts'
complete -c temps -n "__fish_temps_using_subcommand help; and __fish_seen_subcommand_from domain" -f -a "remove" -d 'Take hosts away from an app'
complete -c temps -n "__fish_temps_using_subcommand help; and __fish_seen_subcommand_from domain" -f -a "list" -d 'List the hosts of an app, its own first'
