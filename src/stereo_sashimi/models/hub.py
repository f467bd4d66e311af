"""Exported models on the Hugging Face Hub, by `user/name@revision`; needs the extra `hub`.

A repository is not trusted: of its files only an exported model's are fetched, config.json first, which bounds the size
of the weights; loading then checks them as any exported model's, and nothing is executed. The server that HF_ENDPOINT
names is trusted.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from stereo_sashimi.models.exported import CONFIG, MAX_CONFIG_BYTES, WEIGHTS, most_bytes
from stereo_sashimi.models.model_files import CARD, CheckpointError, origin

# Branches, tags and commits become parts of paths in the cache.
_NAME = re.compile(r"([\w.-]+/[\w.-]+)(?:@(\w[\w./+-]*))?", re.ASCII)


def fetch(name: str) -> Path:
    """The weights of an exported model on the Hub, with its config.json beside them in the cache of huggingface_hub.

    - `name`: `user/name`, or `user/name@revision` for a branch, a tag or a commit.

    Without a connection the copy of an earlier call is taken. Raises CheckpointError that says what to do.
    """
    repo, revision = split(name)
    config = _download(repo, CONFIG, revision, MAX_CONFIG_BYTES)
    # The commit of config.json: the branch may move in between.
    return _download(repo, WEIGHTS, config.parent.name, most_bytes(config))


def fetch_card(weights: Path) -> Path | None:
    """The README.md of what `fetch` returned; None if its repository has none."""
    repo, commit = split(origin(weights) or "")
    try:
        return _download(repo, CARD, commit, MAX_CONFIG_BYTES)
    except _AbsentFile:
        return None


def split(name: str) -> tuple[str, str | None]:
    """Repository and revision of a name. Raises CheckpointError for what is none."""
    found = _NAME.fullmatch(name)
    if found is None or ".." in name:
        raise CheckpointError(
            f"{name!r} is no name on the Hub. Write user/name or user/name@revision, in letters, digits and -_."
        )
    return found[1], found[2]


def upload(
    folder: Path, repo: str, card: str, *, revision: str | None = None, private: bool | None = None, message: str
) -> str:
    """Put an exported model into a repository, which is made if it is not there, in one commit; returns the commit.

    - `card`: text for README.md where neither the folder nor the repository has one.
    - `revision`: a branch, made if it is not there; None: main.
    - `private`: of the repository. One that is there and is not as said is refused; None: as it is.

    Raises CheckpointError that says what to do.
    """
    hub = _library()
    api = hub.HfApi()
    if hub.get_token() is None:
        raise CheckpointError(
            "Pushing needs a token that may write. Make one in the settings of your account on the Hub, and log in "
            "with `hf auth login` or set HF_TOKEN."
        )
    files: dict[str, Path | bytes] = {name: folder / name for name in (CONFIG, WEIGHTS)}
    with _explained(repo, revision, ""):
        api.create_repo(repo, private=private, exist_ok=True)
        if private is not None and bool(api.model_info(repo).private) != private:
            raise CheckpointError(
                f"{repo} is {'public' if private else 'private'} already. Change that in its settings on the Hub, or "
                "leave out private=."
            )
        if revision is not None:
            api.create_branch(repo, branch=revision, exist_ok=True)
        if (folder / CARD).is_file():
            files[CARD] = folder / CARD
        elif not api.file_exists(repo, CARD, revision=revision):
            files[CARD] = card.encode()
        additions = [hub.CommitOperationAdd(name, content) for name, content in files.items()]
        return str(api.create_commit(repo, additions, commit_message=message, revision=revision).oid)


class _AbsentFile(CheckpointError):
    """The repository is there, the file is not."""


def _download(repo: str, file: str, revision: str | None, most: int) -> Path:
    hub = _library()
    from huggingface_hub import errors

    with _explained(repo, revision, file):
        try:
            # Asked for here, as hf_hub_download would knock for half a minute where nobody answers.
            size = hub.get_hf_file_metadata(hub.hf_hub_url(repo, file, revision=revision)).size
        except (errors.OfflineModeIsEnabled, errors.HTTPError) as error:
            if isinstance(error, errors.HfHubHTTPError) and error.response.status_code < 500:
                raise
            return Path(hub.hf_hub_download(repo, file, revision=revision, local_files_only=True))
        if size is None or size > most:
            raise CheckpointError(
                f"{repo}: its {file} has {size} bytes, an exported model's at most {most}. It is not fetched."
            )
        return Path(hub.hf_hub_download(repo, file, revision=revision))


def _library() -> ModuleType:
    try:
        import huggingface_hub
    except ImportError as error:
        raise CheckpointError(
            "Names on the Hub need huggingface_hub, which is not installed. pip install 'stereo-sashimi[hub]'"
        ) from error
    return huggingface_hub


@contextmanager
def _explained(repo: str, revision: str | None, file: str) -> Iterator[None]:
    """Raise CheckpointError, in our words, for what huggingface_hub raises."""
    from huggingface_hub import constants, errors

    server = constants.ENDPOINT
    unreachable = (
        f"{server} cannot be reached{' as HF_HUB_OFFLINE is set' if constants.HF_HUB_OFFLINE else ''}, and there is no "
        f"copy of {repo} here. Look at the connection, HF_ENDPOINT and HF_HUB_OFFLINE, or bring an exported folder."
    )
    try:
        yield
    except errors.GatedRepoError as error:
        raise CheckpointError(f"{repo} is gated. Ask for access at {server}/{repo}, then `hf auth login`.") from error
    except errors.RepositoryNotFoundError as error:
        raise CheckpointError(
            f"{server} has no model {repo}, or it is private. Look at the name; for a private one log in with `hf auth "
            "login` or set HF_TOKEN."
        ) from error
    except errors.RevisionNotFoundError as error:
        raise CheckpointError(f"{repo} has no revision {revision}. There are those of {server}/{repo}.") from error
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
        raise CheckpointError(unreachable) from error
    except errors.EntryNotFoundError as error:
        raise _AbsentFile(f"{repo} has no {file}: it is no exported model of this package.") from error
    except errors.HfHubHTTPError as error:
        if error.response.status_code not in (401, 403):
            raise CheckpointError(f"{server}, asked for {repo}: {' '.join(str(error).split())}") from error
        raise CheckpointError(
            f"{server} refuses this token for {repo}. Use one that may read it, and write it to push: `hf auth login`, "
            "or HF_TOKEN."
        ) from error
    except errors.HTTPError as error:
        raise CheckpointError(unreachable) from error
    except (OSError, RuntimeError) as error:
        # Of an upload that fails the RuntimeError says which file, and its cause why.
        said = f"{error} {error.__cause__ or ''}"
        raise CheckpointError(f"{server}, asked for {repo}: {' '.join(said.split())}") from error
