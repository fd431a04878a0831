from wsss_cli.cli.app import main

main()
