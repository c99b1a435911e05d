"""What the grid's own libraries say of a chain: libvomsapi with VERIFY_FULL, and Globus's credential library.

Run as a program of its own, because both bring their own OpenSSL and may end the process:
``grid_oracle.py voms CHAIN VOMSDIR CERTDIR`` prints the FQANs, one a line; ``grid_oracle.py globus CHAIN CERTDIR``
prints the type of each certificate, leaf first, as a number. Both print a line that begins with ``refused:`` instead.
CHAIN is PEM, leaf first, without the root; for Globus it holds the leaf's key.

libvomsapi 2.1.0~rc3 verifies ACs of RSA keys only: of a server or CA with an EC key it accepts a tampered AC.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from ctypes import POINTER, byref, c_char_p, c_int, c_uint, c_void_p

VERIFY_FULL = 0xFFFFFFFF
RECURSE_CHAIN = 0


class Voms(ctypes.Structure):
    """``struct voms`` of voms_apic.h, as far as its FQANs."""

    _fields_ = [
        ("siglen", c_int), ("signature", c_char_p), ("user", c_char_p), ("userca", c_char_p), ("server", c_char_p),
        ("serverca", c_char_p), ("voname", c_char_p), ("uri", c_char_p), ("date1", c_char_p), ("date2", c_char_p),
        ("type", c_int), ("std", c_void_p), ("custom", c_char_p), ("datalen", c_int), ("version", c_int),
        ("fqan", POINTER(c_char_p)),
    ]  # fmt: skip


class VomsData(ctypes.Structure):
    """``struct vomsdata`` of voms_apic.h, as far as its attribute certificates."""

    _fields_ = [("cdir", c_char_p), ("vdir", c_char_p), ("data", POINTER(POINTER(Voms)))]


def read_chain(path: str) -> tuple[ctypes.CDLL, list[int]]:
    """Read the certificates of a PEM file into OpenSSL's own structures."""
    crypto = ctypes.CDLL("libcrypto.so.3")
    crypto.BIO_new_file.restype = crypto.PEM_read_bio_X509.restype = crypto.OPENSSL_sk_new_null.restype = c_void_p
    crypto.PEM_read_bio_X509.argtypes = [c_void_p] * 4
    crypto.OPENSSL_sk_push.argtypes = [c_void_p] * 2
    opened = c_void_p(crypto.BIO_new_file(path.encode(), b"r"))
    return crypto, list(iter(lambda: crypto.PEM_read_bio_X509(opened, None, None, None), None))


def ask_voms(path: str, vomsdir: str, certdir: str) -> Iterator[str]:
    """Give the FQANs that libvomsapi accepts, or one line that begins with ``refused:``."""
    api = ctypes.CDLL("libvomsapi.so.1")
    api.VOMS_Init.restype = POINTER(VomsData)
    api.VOMS_SetVerificationType.argtypes = [c_uint, POINTER(VomsData), POINTER(c_int)]
    api.VOMS_Retrieve.argtypes = [c_void_p, c_void_p, c_int, POINTER(VomsData), POINTER(c_int)]
    api.VOMS_ErrorMessage.argtypes = [POINTER(VomsData), c_int, c_char_p, c_int]
    api.VOMS_ErrorMessage.restype = c_char_p
    crypto, [leaf, *others] = read_chain(path)
    chain = c_void_p(crypto.OPENSSL_sk_new_null())
    for one in others:
        crypto.OPENSSL_sk_push(chain, one)
    told, error = api.VOMS_Init(vomsdir.encode(), certdir.encode()), c_int()
    api.VOMS_SetVerificationType(VERIFY_FULL, told, byref(error))
    if not api.VOMS_Retrieve(leaf, chain, RECURSE_CHAIN, told, byref(error)):
        yield f"refused: {api.VOMS_ErrorMessage(told, error, None, 0).decode().strip()}"
        return
    for one in up_to_null(told.contents.data):
        for fqan in up_to_null(one.contents.fqan):
            yield fqan.decode()


def up_to_null(array: ctypes._Pointer) -> Iterator:  # type: ignore[name-defined,type-arg] # ctypes names it so
    """Walk an array that ends with NULL."""
    place = 0
    while array and array[place]:
        yield array[place]
        place += 1


def ask_globus(path: str, certdir: str) -> Iterator[str]:
    """Give the type of each certificate of a chain that Globus accepts, or one line that begins with ``refused:``."""
    credential = ctypes.CDLL("libglobus_gsi_credential.so.1", mode=ctypes.RTLD_GLOBAL)
    callback = ctypes.CDLL("libglobus_gsi_callback.so.0")
    common = ctypes.CDLL("libglobus_common.so.0", mode=ctypes.RTLD_GLOBAL)
    utils = ctypes.CDLL("libglobus_gsi_cert_utils.so.0")
    proxy = ctypes.CDLL("libglobus_gsi_proxy_core.so.0")
    common.globus_module_activate(byref(c_int.in_dll(credential, "globus_i_gsi_credential_module")))
    common.globus_module_activate(byref(c_int.in_dll(proxy, "globus_i_gsi_proxy_module")))
    handle, told = c_void_p(), c_void_p()
    steps = [
        lambda: credential.globus_gsi_cred_handle_init(byref(handle), None),
        lambda: credential.globus_gsi_cred_read_proxy(handle, path.encode()),
        lambda: callback.globus_gsi_callback_data_init(byref(told)),
        lambda: callback.globus_gsi_callback_set_cert_dir(told, certdir.encode()),
        lambda: credential.globus_gsi_cred_verify_cert_chain(handle, told),
    ]
    common.globus_error_get.restype = c_void_p
    common.globus_error_print_friendly.restype = c_char_p
    for step in steps:
        failure = step()
        if failure:
            text = common.globus_error_print_friendly(c_void_p(common.globus_error_get(failure)))
            yield f"refused: {text.decode().strip().splitlines()[-1]}"
            return
    for one in read_chain(path)[1]:
        kind = c_uint()
        utils.globus_gsi_cert_utils_get_cert_type(c_void_p(one), byref(kind))
        yield hex(kind.value)


if __name__ == "__main__":
    for line in (ask_voms if sys.argv[1] == "voms" else ask_globus)(*sys.argv[2:]):
        sys.stdout.write(line + "\n")
