"""Options that several subcommands share."""


def add_model_arguments(parser) -> None:
    parser.add_argument(
        "--model", metavar="PATH",
        help="checkpoint of stage 1 or 3, FLESA or GEmo-CLAP; or what was exported, a folder or .onnx "
        "(default: the packaged model)",
    )  # fmt: skip
    parser.add_argument(
        "--whole", type=float, default=15.0, metavar="S",
        help="recordings of up to so many seconds are computed in one piece (%(default)s)",
    )  # fmt: skip
    add_device_argument(parser)


def add_device_argument(parser) -> None:
    parser.add_argument("--device", help="cpu or cuda (default: cuda if there is one; cpu for an .onnx model)")


def device_of(args) -> str:
    """The device that was asked for, or the best there is for the model."""
    from ..arguments import check_device
    from ..devices import default_device

    return check_device(args.device or default_device(getattr(args, "model", None)))
