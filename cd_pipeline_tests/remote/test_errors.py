"""What the client of a store says, and what is made of it."""

import errno

import pytest

from cd_pipeline.remote.errors import StoreError, told_of

SAID = {
    "When listing objects under key 'p/' in bucket 'b': AWS Error ACCESS_DENIED during ListObjectsV2 operation: "
    "Access Denied (Request ID: 7a62c49f)": "the store refuses access; set AWS_ACCESS_KEY_ID",
    "When reading information for key 'p' in bucket 'b': AWS Error ACCESS_DENIED during HeadObject operation: No "
    "response body.": "who may list, read, write and delete there",
    "AWS Error UNKNOWN (HTTP status 403) during PutObject operation": "the store refuses access",
    "AWS Error EXPIRED_TOKEN during GetObject operation: The provided token has expired": "get new ones",
    "AWS Error NO_SUCH_BUCKET during PutObject operation: The specified bucket does not exist": "create it",
    "AWS Error SLOW_DOWN during PutObject operation: Please reduce your request rate.": "run again later",
    "AWS Error NETWORK_CONNECTION during HeadObject operation: curlCode: 6, Could not resolve hostname": "the network",
    "something new": "run again (something new)",
}


@pytest.mark.parametrize(("said", "told"), SAID.items())
def test_what_a_client_says_becomes_a_line_with_the_remedy(said: str, told: str) -> None:
    with pytest.raises(StoreError) as caught, told_of("s3://b/p"):
        raise OSError(said)
    line = str(caught.value)
    assert line.startswith("s3://b/p: ")
    assert told in line
    assert "\n" not in line
    assert "Request ID" not in line


def test_what_is_wrong_with_the_local_disk_is_not_told_of_the_store() -> None:
    with pytest.raises(OSError, match="No space left") as caught, told_of("s3://b/p"):
        raise OSError(errno.ENOSPC, "No space left on device", "/some/file")
    assert not isinstance(caught.value, StoreError)
