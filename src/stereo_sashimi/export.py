"""Export a trained model: `python -m stereo_sashimi.export checkpoint=..`. The work is in `app/export.py`."""

from stereo_sashimi.app.export import main

if __name__ == "__main__":
    main()
