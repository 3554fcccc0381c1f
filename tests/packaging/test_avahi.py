"""How the board announces itself on the network."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

from rockfill.api.ws.frames import PROTOCOL_VERSION
from rockfill.config import Server, parse_address

SERVICE = Path(__file__).parents[2] / "systemd" / "rockfill.avahi.service"


def test_it_is_found_as_a_web_page_and_as_itself_at_the_port_that_it_listens_on() -> None:
    group = ET.parse(SERVICE).getroot()
    assert group.tag == "service-group"
    services = {service.findtext("type"): service for service in group.findall("service")}
    assert set(services) == {"_rockfill._tcp", "_http._tcp"}
    port = str(parse_address(Server().listen).port)
    assert {service.findtext("port") for service in services.values()} == {port}
    told = [record.text for record in services["_rockfill._tcp"].findall("txt-record")]
    assert told == ["path=/ws", f"protocol={PROTOCOL_VERSION}"]
